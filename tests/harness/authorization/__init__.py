"""Every route, with every kind of credential, on every kind of row: what is asked, and what has to be the answer.

:mod:`.lines` and :mod:`.streams` say what is asked for on which route and what that needs, :mod:`.rows` what about, :mod:`.catalogue`
which credentials there are and what their holders may do, :mod:`.oracle` what has to be the answer. None of that is read from the code under test: it is
written once more, in words that a person can check. :mod:`.world` is what is asked about, and what has to stay as it was.
"""
