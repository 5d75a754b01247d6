"""The part of Meta's Graph API that sets up a webhook: subscriptions of the app and of accounts, and overrides.

Sources: "Graph API > Webhooks > Subscriptions edge", "WhatsApp Business Platform > Webhooks > Overrides" and "Graph API
> Handling errors" of Meta's documentation.
"""
