"""A libtorrent session that seeds or downloads one torrent, steered by arguments.

Prints one JSON object a line on standard output and ends when standard input is closed.

    libtorrent_peer.py seed --listen IP:PORT --dht IP:PORT --content PATH --piece-length N [--hybrid]
    libtorrent_peer.py seed --listen IP:PORT --dht IP:PORT --torrent FILE --output DIR
    libtorrent_peer.py get  --listen IP:PORT --dht IP:PORT --magnet LINK --output DIR
    libtorrent_peer.py get  --listen IP:PORT --dht IP:PORT --torrent FILE --output DIR

Everything that could reach beyond the addresses given is off: local discovery, port mapping, the
built-in DHT routers. The DHT is entered at the one address named; with `--dht none` it is off too. With
`--peers-by lsd` peers are found by local discovery alone, with `--peers-by peers` by nothing but those
that connect.
"""

import argparse
import json
import os
import select
import sys
import time

import libtorrent as lt

def say(**fields):
    print(json.dumps(fields), flush=True)

def make_session(listen, dht, peers_by="dht", **more):
    settings = {
        "listen_interfaces": listen,
        "outgoing_interfaces": listen.rsplit(":", 1)[0].strip("[]"),
        "enable_lsd": peers_by == "lsd",
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_dht": peers_by == "dht" and dht != "none",
        "dht_bootstrap_nodes": "" if dht == "none" else dht,
        "allow_multiple_connections_per_ip": True,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "dht_restrict_routing_ips": False,
        "dht_restrict_search_ips": False,
        "dht_prefer_verified_node_ids": False,
        "dht_enforce_node_id": False,
        "dht_upload_rate_limit": 10_000_000,
        "dht_block_ratelimit": 100_000,
        "dht_block_timeout": 1,
        "out_enc_policy": 2,
        "in_enc_policy": 2,
        "alert_mask": lt.alert.category_t.error_notification
        | lt.alert.category_t.status_notification
        | lt.alert.category_t.dht_notification,
        **more,
    }
    return lt.session(settings)

def add_seed(session, args):
    storage = lt.file_storage()
    lt.add_files(storage, args.content)

    flags = 0 if args.hybrid else lt.create_torrent.v1_only
    torrent = lt.create_torrent(storage, args.piece_length, flags=flags)
    lt.set_piece_hashes(torrent, os.path.dirname(args.content))
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent.generate())
    params.save_path = os.path.dirname(args.content)
    params.flags |= lt.torrent_flags.seed_mode
    params.flags &= ~lt.torrent_flags.paused
    return session.add_torrent(params)

def add_torrent(session, args):
    """Adds what a .torrent file describes; to seed it, without looking whether it is there."""
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(args.torrent)
    params.save_path = args.output
    if args.mode == "seed":
        params.flags |= lt.torrent_flags.seed_mode
    params.flags &= ~lt.torrent_flags.paused
    return session.add_torrent(params)

def add_magnet(session, args):
    params = lt.parse_magnet_uri(args.magnet)
    params.save_path = args.output
    params.flags &= ~lt.torrent_flags.paused
    return session.add_torrent(params)

def closed(stream):
    """Whether standard input has ended: our owner is gone or wants us to go."""
    ready, _, _ = select.select([stream], [], [], 0)
    return bool(ready) and not stream.buffer.read1(1)

def serve(session, handle):
    done = False
    bootstrapped = False
    announced = 0.0
    started = time.monotonic()
    while not closed(sys.stdin):
        session.wait_for_alert(200)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.dht_bootstrap_alert):
                bootstrapped = True
                say(event="bootstrapped", seconds=time.monotonic() - started)
            elif alert.category() & lt.alert.category_t.error_notification:
                say(event="error", message=alert.message())
        status = handle.status()
        # Its own interval is minutes; a test asks again until somebody is there.
        if bootstrapped and status.num_peers == 0 and time.monotonic() - announced > 2:
            announced = time.monotonic()
            handle.force_dht_announce()
        if status.is_seeding and not done:
            done = True
            say(event="done", seconds=time.monotonic() - started)
        if status.errc.value() != 0:
            say(event="error", message=status.errc.message())

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["seed", "get"])
    parser.add_argument("--listen", required=True)
    parser.add_argument("--dht", required=True)
    parser.add_argument("--peers-by", choices=["dht", "lsd", "peers"], default="dht")
    parser.add_argument("--content")
    parser.add_argument("--piece-length", type=int, default=0)
    parser.add_argument("--torrent")
    parser.add_argument("--hybrid", action="store_true")
    parser.add_argument("--magnet")
    parser.add_argument("--output")
    args = parser.parse_args()
    session = make_session(args.listen, args.dht, args.peers_by)
    if args.torrent:
        handle = add_torrent(session, args)
    elif args.mode == "get":
        handle = add_magnet(session, args)
    else:
        handle = add_seed(session, args)
        info_hash = str(handle.info_hashes().v1)
        say(event="seeding", info_hash=info_hash, magnet="magnet:?xt=urn:btih:" + info_hash)
    serve(session, handle)

if __name__ == "__main__":
    main()
