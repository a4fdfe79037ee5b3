SELECT number, checksum FROM lifecycle.migrations
