"""The fault bench: faults injected into real processes, and what became of the mails."""
