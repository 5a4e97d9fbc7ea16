"""The shell touches the world and decides nothing: Kubernetes, the WhatsApp Business API, probes, clocks."""
