use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

const VALUE: &[u8] = b"12:Hello World!";
const PUBLIC: &str = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";
const SECRET: &str = "e06d3183d14159228433ed599221b80bd0a5ce8352e4bdf0262f76786ef1c74d\
                      b7e7a9fea2c0eb269d61e3b38e450a22e754941ac78479d6c54e1faf6037881d";
const SIGNATURE: &str = "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
                         1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01";
const SALTED_SIGNATURE: &str = "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
                                df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08";

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
}

fn key() -> SecretKey {
    SecretKey::from_expanded(&bytes(SECRET))
}

#[track_caller]
fn check_vector(salt: &[u8], buffer: &[u8], target: &str, signature: &str) {
    assert_eq!(signed_bytes(salt, 1, VALUE), buffer);
    let item = Item::mutable(&key(), salt, 1, VALUE).unwrap();
    assert_eq!(item.target(), target.parse().unwrap());
    let version = item.version().unwrap();
    assert_eq!(version.key, bytes(PUBLIC));
    assert_eq!(version.signature, bytes(signature));
    assert_eq!(Item::signed(version.clone(), VALUE), Ok(item));
}

#[test]
fn the_mutable_vector_of_bep_44_comes_out_byte_for_byte() {
    check_vector(
        b"",
        b"3:seqi1e1:v12:Hello World!",
        "4a533d47ec9c7d95b1ad75f576cffc641853b750",
        SIGNATURE,
    );
}

#[test]
fn the_vector_with_salt_of_bep_44_comes_out_byte_for_byte() {
    check_vector(
        b"foobar",
        b"4:salt6:foobar3:seqi1e1:v12:Hello World!",
        "411eba73b6f087ca51a3795d9c8c938d365e32c1",
        SALTED_SIGNATURE,
    );
}

#[test]
fn the_immutable_vector_of_bep_44_comes_out_byte_for_byte() {
    let target = "e5f96f6f38320f0f33959cb4d3d656452117aadb";
    assert_eq!(
        Item::immutable(VALUE).unwrap().target(),
        target.parse().unwrap()
    );
}

#[test]
fn a_key_from_a_seed_is_that_of_rfc_8032() {
    // Section 7.1, test 1.
    let seed = bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(SecretKey::from_seed(&seed).public(), bytes(public));
}

#[test]
fn what_breaks_a_limit_is_no_item() {
    let value = |length: usize| format!("{length}:{}", "x".repeat(length)).into_bytes();
    assert!(Item::immutable(&value(996)).is_ok());
    assert_eq!(
        Item::immutable(&value(997)),
        Err(ItemError::ValueLength { length: 1001 })
    );
    for wrong in [&b"d1:b0:1:a0:e"[..], b"i07e", b"", b"1:", b"0:0:"] {
        assert_eq!(Item::immutable(wrong), Err(ItemError::NotCanonical));
    }
    let mutable = |salt: usize, seq| Item::mutable(&key(), &vec![1; salt], seq, VALUE);
    assert!(mutable(64, i64::MAX).is_ok() && mutable(0, 0).is_ok());
    assert_eq!(mutable(65, 0), Err(ItemError::SaltLength { length: 65 }));
    assert_eq!(mutable(0, -1), Err(ItemError::NegativeSeq));
}

#[test]
fn a_signature_holds_for_its_salt_number_and_value_only() {
    let item = Item::mutable(&key(), b"s", 7, VALUE).unwrap();
    let version = item.version().unwrap();
    let with = |change: fn(&mut Signed)| {
        let mut changed = version.clone();
        change(&mut changed);
        Item::signed(changed, VALUE)
    };
    assert_eq!(with(|_| ()), Ok(item.clone()));
    let wrong = Err(ItemError::Signature);
    assert_eq!(with(|signed| signed.seq = 8), wrong);
    assert_eq!(with(|signed| signed.salt = Box::default()), wrong);
    assert_eq!(with(|signed| signed.signature[3] ^= 1), wrong);
    assert_eq!(with(|signed| signed.key[3] ^= 1), wrong);
    assert_eq!(Item::signed(version.clone(), b"0:"), wrong);
}

#[test]
fn a_key_of_small_order_signs_nothing() {
    // The neutral element, for which a lax check accepts R = the neutral element and S = 0.
    let mut key = [0; 32];
    key[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let signed = Signed {
        key,
        salt: Box::default(),
        seq: 1,
        signature,
    };
    assert_eq!(Item::signed(signed, VALUE), Err(ItemError::Signature));
}

#[test]
fn an_answer_is_believed_only_for_its_target() {
    let item = Item::mutable(&key(), b"s", 7, VALUE).unwrap();
    let target = item.target();
    let from =
        |target: &NodeId, salt: &[u8], view: &ItemView<'_>| Item::from_answer(target, salt, view);
    assert_eq!(from(&target, b"s", &item.view()), Some(item.clone()));
    assert_eq!(from(&target, b"", &item.view()), None);
    assert_eq!(from(&NodeId::new([1; 20]), b"s", &item.view()), None);
    let unsigned = ItemView {
        signature: None,
        ..item.view()
    };
    assert_eq!(from(&target, b"s", &unsigned), None);
    // Without the key it would have to be the hash of the value.
    let keyless = ItemView {
        key: None,
        ..item.view()
    };
    assert_eq!(from(&target, b"s", &keyless), None);
    let immutable = Item::immutable(VALUE).unwrap();
    let target = immutable.target();
    assert_eq!(
        from(&target, b"", &immutable.view()),
        Some(immutable.clone())
    );
    assert_eq!(from(&NodeId::new([1; 20]), b"", &immutable.view()), None);
}

proptest! {
    #[test]
    fn what_is_signed_is_accepted(
        seed in any::<[u8; 32]>(),
        salt in prop::collection::vec(any::<u8>(), 0..=64),
        seq in 0..=i64::MAX,
        text in prop::collection::vec(any::<u8>(), 0..900),
    ) {
        let mut value = Vec::new();
        Writer::new(&mut value).bytes(&text);
        let item = Item::mutable(&SecretKey::from_seed(&seed), &salt, seq, &value).unwrap();
        let put = item.put(b"token", Some(1));
        prop_assert_eq!(Item::from_put(&put), Ok(item.clone()));
        let view = item.view();
        prop_assert_eq!(Item::from_answer(&item.target(), &salt, &view), Some(item.clone()));
    }
}
