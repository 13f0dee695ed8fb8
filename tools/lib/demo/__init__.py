"""The demo: real files go to discs and come back, and a picture shows how. See `tools/demo`."""
