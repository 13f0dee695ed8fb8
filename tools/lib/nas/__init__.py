"""The mount on the network, in the lab's kernel: real servers, real clients, one host."""
