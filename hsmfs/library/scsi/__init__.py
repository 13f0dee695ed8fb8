"""A real library: a SCSI media changer and its optical drives, by Linux's sg driver."""
