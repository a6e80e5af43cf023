"""A node of a hospital's network that loses nothing: images in, results to the PACS."""

from __future__ import annotations

from monai_thyroid.deploy.node.node import Node, NodeOptions, peer, run_node
from monai_thyroid.deploy.node.server import Access, Tls

__all__ = ["Access", "Node", "NodeOptions", "Tls", "peer", "run_node"]
