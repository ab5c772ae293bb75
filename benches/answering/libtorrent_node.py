"""A libtorrent session that does nothing but answer DHT queries, with all its limits lifted.

Prints its address as one JSON line and ends when standard input is closed.
"""

import json
import sys

import libtorrent as lt

entry, torrents, items = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
session = lt.session({
    "listen_interfaces": "127.0.0.1:0",
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_dht": True,
    "dht_bootstrap_nodes": entry,
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False,
    "dht_enforce_node_id": False,
    "dht_ignore_dark_internet": False,
    "dht_upload_rate_limit": 2_000_000_000,
    "dht_block_ratelimit": 100_000_000,
    "dht_block_timeout": 1,
    "dht_max_torrents": torrents,
    "dht_max_dht_items": items,
    "recv_socket_buffer_size": 4 << 20,
    "alert_mask": 0,
})
print(json.dumps({"event": "listening", "port": session.listen_port()}), flush=True)
sys.stdin.read()
