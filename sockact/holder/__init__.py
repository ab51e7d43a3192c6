"""The holder: an owner that serves no traffic and keeps sets of sockets for others.

What it has must outlive it. Under systemd, with an fd store, every descriptor is in the store
before the one who put it hears of success, and so are the rendezvous listener, the lock, and a
memfd that says which descriptor belongs to which set; so a holder that is killed finds everything
again, and who connects meanwhile waits in the listener's backlog. It is replaced by a newer holder
as any owner is: by a takeover.
"""
