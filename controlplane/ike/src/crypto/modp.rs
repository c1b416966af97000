//! The modular group of 2048 bits (RFC 3526 §3), in constant time: the library's Montgomery exponentiation looks at every bit of the exponent
//! and every entry of its table.

use crypto_bigint::U2048;
use crypto_bigint::Uint;
use crypto_bigint::modular::ConstMontyForm;
use zeroize::{Zeroize, Zeroizing};

use super::Secret;

crypto_bigint::const_monty_params!(
    Modulus,
    U2048,
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD1\
     29024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245\
     E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
     C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D\
     670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9\
     DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AACAA68FFFFFFFFFFFFFFFF",
    "p = 2^2048 - 2^1984 - 1 + 2^64 * (floor(2^1918 pi) + 124476)"
);

/// A number modulo p.
type Residue = ConstMontyForm<Modulus, { U2048::LIMBS }>;

/// Length in bytes of a public value, and of the shared secret.
const LEN: usize = 256;

/// A private exponent: 320 bits, which is what RFC 3526 §8 reckons for this group at most.
pub(super) type Exponent = Zeroizing<Bytes>;

/// Its bytes.
#[derive(Zeroize)]
pub(super) struct Bytes([u8; 40]);

impl Default for Bytes {
    fn default() -> Self {
        Self([0; 40])
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// 2^exponent, of the length of the modulus.
pub(super) fn public(exponent: &Exponent) -> Vec<u8> {
    raised(&U2048::from_u8(2), exponent).to_vec()
}

/// public^exponent, of the length of the modulus (RFC 7296 §2.14). `None` if the public value is of another length (§3.4), or not between 2
/// and p - 2 (RFC 6989 §2.1): 0, 1 and p - 1 make a shared secret that everybody knows.
pub(super) fn shared(exponent: &Exponent, public: &[u8]) -> Option<Secret> {
    if public.len() != LEN {
        return None;
    }
    let public = U2048::from_be_slice(public);
    let most = <Modulus as crypto_bigint::modular::ConstMontyParams<{ U2048::LIMBS }>>::PARAMS;
    let most = most.modulus().wrapping_sub(&U2048::from_u8(2));
    if public < U2048::from_u8(2) || public > most {
        return None;
    }
    Some(Zeroizing::new(raised(&public, exponent).to_vec()))
}

fn raised(base: &U2048, exponent: &Exponent) -> Zeroizing<[u8; LEN]> {
    let mut exponent = Uint::<5>::from_be_slice(exponent);
    let mut residue = Residue::new(base).pow(&exponent).retrieve();
    exponent.zeroize();
    let mut bytes = Zeroizing::new([0; LEN]);
    bytes.copy_from_slice(residue.to_be_bytes().as_ref());
    residue.zeroize();
    bytes
}
