"""Everything that speaks with the WhatsApp Business API."""
