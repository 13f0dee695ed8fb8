"""Run by Samba.session with the system's Python: a script that talks SMB by Samba's own library.

    smb_session.py CONFIG ADDRESS SHARE USER PASSWORD SCRIPT [WORDS...]

The script sees `connect` and `words`. With threads=True one session may be used by many threads.
"""

import sys

from samba import credentials
from samba.samba3 import libsmb_samba_internal as libsmb
from samba.samba3 import param

config, address, share, user, password, script, *words = sys.argv[1:]


def connect(*, threads: bool = False):
    """A session on the share: read(fnum, offset, size), list(folder), create(name, ...)."""
    settings = param.get_context()
    settings.load(config)
    who = credentials.Credentials()
    who.guess(settings)
    who.set_username(user)
    who.set_password(password)
    return libsmb.Conn(address, share, settings, who, multi_threaded=threads)


exec(script, {"connect": connect, "words": words})
