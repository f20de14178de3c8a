"""HTTP/1.1: aiohttp's connections, with what they leave open closed.

aiohttp reads requests and writes answers. What it leaves to its user is here:

- :mod:`~sessions_server.http1.intake` stands before its parser, and knows how much of a head has come, and since when;
- :mod:`~sessions_server.http1.watch` decides when a client has been too slow, or a connection is old enough;
- :mod:`~sessions_server.http1.connection` is a connection that is looked at every now and then, and refuses what is no request
  in the same words as everything else;
- :mod:`~sessions_server.http1.request` is a request whose body is read as it came.
"""
