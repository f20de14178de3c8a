"""HTTP/2 on the server's own port, beside aiohttp's HTTP/1.1.

How this works
--------------
:mod:`~sessions_server.http2.listener` takes connections, and :mod:`~sessions_server.http2.reception` says what becomes of those
for which :mod:`~sessions_server.places` has no place. After :mod:`~sessions_server.http2.handshake`, where there is TLS,
:mod:`~sessions_server.http2.switch` looks at the first bytes of each (or at what TLS has agreed on) and hands it to aiohttp or
to :mod:`~sessions_server.http2.connection`, and is out of the way from then on. The library ``h2`` knows the protocol; what it
leaves to its user is here:

- :mod:`~sessions_server.http2.frames` cuts the bytes into frames, and refuses those that are too large before they are there;
- :mod:`~sessions_server.http2.budget` counts what costs a client nothing and us something, and says when it is enough;
- :mod:`~sessions_server.http2.stream` is one request as an :class:`~sessions_server.data_plane.exchange.Exchange`, with flow
  control both ways;
- :mod:`~sessions_server.http2.bridge` lets the routes of HTTP/1.1 answer such an exchange.
"""
