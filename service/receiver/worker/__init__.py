"""The server's worker: gunicorn's gevent worker with llhttp as its parser, patching nothing, with deadlines.

Only the sockets wait cooperatively; threads, locks, the exporters and the database client are the ordinary ones.
A connection is one greenlet, so that a stalled client costs that and no more.
"""

from service.receiver.worker.gunicorn_worker import Worker

__all__ = ["Worker"]
