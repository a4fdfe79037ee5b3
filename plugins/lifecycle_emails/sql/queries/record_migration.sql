INSERT INTO lifecycle.migrations (number, name, checksum) VALUES (%(number)s, %(name)s, %(checksum)s)
