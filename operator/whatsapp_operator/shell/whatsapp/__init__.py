"""The client of the WhatsApp Business API."""
