"""The commands of hsmctl, one a file; each module has its click command as `command`."""
