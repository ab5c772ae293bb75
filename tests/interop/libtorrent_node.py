"""A libtorrent DHT node that asks what it is told to ask.

Reads one JSON object a line on standard input, answers each with one on standard output, and ends when
standard input is closed.

    libtorrent_node.py --listen IP:PORT [--dht IP:PORT] [--enforce-node-ids]

    {"do": "put", "value": TEXT}                                  -> {"event": "put", "target", "stored"}
    {"do": "put", "value": TEXT, "key": HEX, "public": HEX, "salt": TEXT}
    {"do": "get", "target": HEX}                                  -> {"event": "item", "value"}
    {"do": "get", "public": HEX, "salt": TEXT, "seq": MIN}        -> {"event": "item", "value", "seq"}
    {"do": "nodes"}                                               -> {"event": "nodes", "id", "nodes"}
    {"do": "meet", "node": IP:PORT}                               -> as "nodes", once it is among them
    {"do": "announce", "torrent": HEX}                            -> {"event": "announced", "stored"}
    {"do": "seed", "file": PATH}                                  -> {"event": "announced", "torrent", "stored"}
    {"do": "peers", "torrent": HEX}                               -> {"event": "peers", "peers"}
    {"do": "sample", "of": IP:PORT, "target": HEX}                -> {"event": "samples", "samples"}
"""

import argparse
import json
import sys
import tempfile
import time

import libtorrent as lt

from libtorrent_peer import add_seed, make_session, say


def wait_for(session, kind, fits=lambda alert: True, seconds=30):
    """The next alert of a kind that fits, or None."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        session.wait_for_alert(200)
        for alert in session.pop_alerts():
            if isinstance(alert, kind) and fits(alert):
                return alert
    return None


def put(session, order):
    if "key" not in order:
        target = session.dht_put_immutable_item(order["value"])
    else:
        key, public = bytes.fromhex(order["key"]), bytes.fromhex(order["public"])
        target = None
        session.dht_put_mutable_item(key, public, order["value"], order["salt"])
    alert = wait_for(session, lt.dht_put_alert)
    say(event="put", target=str(target), stored=alert.num_success if alert else 0)


def fetch(session, order):
    if "public" in order:
        session.dht_get_mutable_item(bytes.fromhex(order["public"]), order["salt"])
        seq = order["seq"]
        alert = wait_for(session, lt.dht_mutable_item_alert, lambda alert: alert.seq >= seq)
    else:
        session.dht_get_immutable_item(lt.sha1_hash(bytes.fromhex(order["target"])))
        alert = wait_for(session, lt.dht_immutable_item_alert)
    item = alert.item if alert else {}
    value = item.get("value")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    say(event="item", value=value, seq=item.get("seq"))


def sample(session, order):
    host, port = order["of"].rsplit(":", 1)
    target = lt.sha1_hash(bytes.fromhex(order["target"]))
    session.dht_sample_infohashes((host.strip("[]"), int(port)), target)
    alert = wait_for(session, lt.dht_sample_infohashes_alert)
    say(event="samples", samples=[str(one) for one in alert.samples] if alert else None)


def endpoint(host, port):
    """An address and port as others write them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def table(session):
    """Its own id, which may change with the address that others see, and the nodes in its table."""
    own = session.dht_state()[b"node-id"][0][:20]
    session.dht_live_nodes(lt.sha1_hash(own))
    alert = wait_for(session, lt.dht_live_nodes_alert)
    return own, [endpoint(*node["endpoint"]) for node in alert.nodes] if alert else []


def nodes(session, order):
    """Whom it knows; all of them answered. The one it was told of at its start is never among them."""
    own, known = table(session)
    say(event="nodes", id=own.hex(), nodes=known)


def meet(session, order, seconds=30):
    """Asks a node, and waits until it is in the table."""
    host, port = order["node"].rsplit(":", 1)
    session.add_dht_node((host.strip("[]"), int(port)))
    until = time.monotonic() + seconds
    while order["node"] not in table(session)[1] and time.monotonic() < until:
        time.sleep(0.05)
    nodes(session, order)


def stored(session, seconds=30):
    """How many nodes said yes to an announce, once all of those that were told have answered."""
    told, agreed = set(), set()
    until = time.monotonic() + seconds
    while time.monotonic() < until and (not told or told != agreed):
        session.wait_for_alert(200)
        for alert in session.pop_alerts():
            if not isinstance(alert, lt.dht_pkt_alert):
                continue
            # ==> [10.77.0.1:6881] { ...
            way, whom = alert.message().split(" ")[:2]
            message = lt.bdecode(alert.pkt_buf)
            if way == "==>" and message.get(b"q") == b"announce_peer":
                told.add((whom, message[b"t"]))
            elif way == "<==" and message.get(b"y") == b"r":
                agreed.update({(whom, message[b"t"])} & told)
    return len(agreed)


def announce(session, order):
    """The binding has no announce of its own that could be called (2.0.8): a torrent does it."""
    params = lt.parse_magnet_uri("magnet:?xt=urn:btih:" + order["torrent"])
    params.save_path = tempfile.gettempdir()
    params.flags &= ~lt.torrent_flags.paused
    session.add_torrent(params)
    say(event="announced", stored=stored(session))


def seed(session, order):
    """Announces as one that has everything (BEP 33)."""
    content = argparse.Namespace(content=order["file"], piece_length=16 << 10, hybrid=False)
    torrent = add_seed(session, content).info_hashes().v1
    say(event="announced", torrent=str(torrent), stored=stored(session))


def peers(session, order):
    """The peers that the first node names who knows any."""
    session.dht_get_peers(lt.sha1_hash(bytes.fromhex(order["torrent"])))
    alert = wait_for(session, lt.dht_get_peers_reply_alert, lambda alert: alert.num_peers() > 0)
    say(event="peers", peers=[endpoint(*peer) for peer in alert.peers()] if alert else None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--dht", default="")
    parser.add_argument("--enforce-node-ids", action="store_true")
    args = parser.parse_args()
    session = make_session(
        args.listen,
        args.dht,
        dht_enforce_node_id=args.enforce_node_ids,
        alert_mask=lt.alert.category_t.all_categories,
    )
    # Without a node to start from there is nothing to wait for but the socket.
    wait_for(session, lt.dht_bootstrap_alert if args.dht else lt.listen_succeeded_alert)
    say(event="ready")
    doing = {
        "put": put,
        "get": fetch,
        "nodes": nodes,
        "meet": meet,
        "announce": announce,
        "seed": seed,
        "peers": peers,
        "sample": sample,
    }
    for line in sys.stdin:
        order = json.loads(line)
        doing[order["do"]](session, order)


if __name__ == "__main__":
    main()
