"""The shell does all I/O and decides nothing: Kubernetes, the WhatsApp Business API, probes, clocks."""
