-- Who waits on one channel, for those who look at a session.
create index waitpoint_channel on waitpoint (environment, key, io, name, id) where status = 'WAITING';
