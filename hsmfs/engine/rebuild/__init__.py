"""The catalog made again from discs alone (docs/rebuild.md): who does what.

harvest.py takes what discs say off them, sources.py visits them, run.py lays it together, pools.py
matches what pools still have, sample.py rehearses it all beside a running daemon.
"""
