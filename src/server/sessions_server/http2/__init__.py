"""HTTP/2. :mod:`sessions_server.listening` hands the connections over that speak it.

How this works
--------------
:mod:`~sessions_server.http2.connection` is one of them. The library ``h2`` knows the protocol; what it leaves to its user is here:

- :mod:`~sessions_server.http2.frames` cuts the bytes into frames, and refuses those that are too large before they are there;
- :mod:`~sessions_server.http2.budget` counts what costs a client nothing and us something, and says when it is enough;
- :mod:`~sessions_server.http2.stream` is one request as an :class:`~sessions_server.exchange.Exchange`, with flow
  control both ways;
- :mod:`~sessions_server.http2.bridge` lets the routes of HTTP/1.1 answer such an exchange.
"""
