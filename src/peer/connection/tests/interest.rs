//! When a peer is told what we want.

use super::*;

#[test]
fn that_we_want_nothing_is_told_once_a_second_at_most() {
    let mut connection = leecher();
    for wants in [true, false, true, false, true, false] {
        connection.set_interested(wants);
    }
    let told = sent(&mut connection);
    let expected = [
        Message::Interested,
        Message::NotInterested,
        Message::Interested,
    ];
    assert_eq!(told, expected, "the rest waits");
    let due = connection.poll_timeout().unwrap();
    assert_eq!((due.at, due.reason), (at(1), WakeReason::Interest));
    connection.handle_timeout(due.at).unwrap();
    assert_eq!(sent(&mut connection), [Message::NotInterested]);
    assert_ne!(
        connection.poll_timeout().unwrap().reason,
        WakeReason::Interest
    );
    connection.set_interested(true);
    assert_eq!(sent(&mut connection), [Message::Interested], "at once");
}
