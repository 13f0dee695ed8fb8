"""What the servers of this host, the kernel's nfsd and Samba, are told of the mount.

A share is a line or a section in a file of the server's own, written by hsmctl; that file is the
only record of it. Everything here blocks, and is for threads and for hsmctl.
"""
