"""The HTTP server: one thread for all sockets, worker threads for the application.

A slow client costs a socket and a few kilobytes, never a thread. Each phase of a connection has a deadline.
"""
