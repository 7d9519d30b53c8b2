"""How the small shipped models were made."""
