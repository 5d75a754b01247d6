"""The gunicorn worker: gunicorn's gevent worker with llhttp as its parser, deadlines, and no monkey-patching.

Only the sockets are cooperative; threads, locks, exporters and the database client are the ordinary ones. A connection
is one greenlet, so that a stalled client costs no more than that.
"""

from service.receiver.worker.gunicorn_worker import Worker

__all__ = ["Worker"]
