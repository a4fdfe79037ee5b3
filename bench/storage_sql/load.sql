INSERT INTO lifecycle.sends SELECT * FROM history_chunk
