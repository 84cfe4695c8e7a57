"""What people should hear of: judged from rows, kept as rows, sent to webhooks once per crossing."""
