"""Who may come in, and how much they may do: API keys, OpenID Connect, rate limits and quotas."""
