"""One port for both versions of HTTP.

How this works
--------------
:mod:`~sessions_server.listening.listener` takes connections, and :mod:`~sessions_server.listening.reception` says what becomes of
those for which :mod:`~sessions_server.connections.places` has no place. After :mod:`~sessions_server.listening.handshake`, where
there is TLS, :mod:`~sessions_server.listening.switch` looks at the first bytes of each (or at what TLS has agreed on) and hands it
to aiohttp or to :mod:`~sessions_server.http2.connection`, and is out of the way from then on.
"""
