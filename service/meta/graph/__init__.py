"""Meta's Graph API, as far as a webhook is set up by it: the app's subscription, the accounts', and overrides.

Sources: "Graph API > Webhooks > Subscriptions edge", "WhatsApp Business Platform > Webhooks > Overrides" and "Graph API
> Handling errors" of Meta's documentation.
"""
