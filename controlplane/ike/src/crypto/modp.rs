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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::tests::bytes;

    fn exponent() -> Exponent {
        let mut exponent = Exponent::default();
        exponent.iter_mut().zip(1..).for_each(|(byte, number)| *byte = number);
        exponent
    }

    /// Powers of 2, and of the number whose bytes are 0, 1, 2, ..., 255; the exponent's bytes are 1 to 40. The answers are of Python's `pow`.
    #[test]
    fn powers_are_what_another_implementation_gives() {
        let answer = bytes(
            "f0cdbd67b9f7aa420ec897f258819be9496e9a0a5726c89df16dd7f451c98e45fb7738b946ffcc3743438f668c562d06\
             c65d330de82a1078bf6f9292fdc86bec74ac0c26640704012785c1611d3c4f3ec28877eff3f5b11ce33a905b731dafca\
             c4daf7e440d201db0ec4888a4e080572c92c1db2886612a28b6ab995987c8767b6a3f577e277713abefe80b9948bd5b7\
             1b931d19185d503acf998c6e4b1cdaa3bc6b1ba20c71e6aceab8bdbf477c4706bea69f095f7687f47e93f99695fe582c\
             7cab8d33f0267dbf4aab867f3a7f7a7f626e520129cd0fa3c7dc290f59217de17293bef38ae9b3bd3829226a08f611a9\
             077a9acf31a954332f5a54d6eb7d524b",
        );
        assert_eq!(public(&exponent()), answer);
        let answer = bytes(
            "2680f8300a0a1e6562b3883a2e168b32596444875c91d904381a1bc8a5d0ad58266be858d797de21d805c5ca7b496680\
             3484199594d1e92326c33bcbb444951015e71d5245ba7364dc08cd9956ab60f965ddc76b80212911e4d1beba2222473e\
             96cd82407fcc997bdbfe866a484850b0c24e7183a9911aad86ce47750a2efd9e3a7c08708299adc9170adcb627091bc0\
             3e5dae7337e7a7ecd4fbfe62f402c565c3a57399331c3c2714ef4c51a68ff8a627f781857f51a7a66e3b6336d87981db\
             6de802e699c06b0fc722122a4fb89df6521aa98efa05f61708cc450e98aaf3c670a6f0ab95a066f0e1134ffb4e542b66\
             82c61ae67b4f45295a17131816908720",
        );
        let theirs: Vec<u8> = (0..=255).collect();
        assert_eq!(*shared(&exponent(), &theirs).unwrap(), answer);
    }

    /// RFC 6989 §2.1: 0, 1, p - 1 and what is not less than p.
    #[test]
    fn values_at_the_ends_are_refused() {
        let p = <Modulus as crypto_bigint::modular::ConstMontyParams<{ U2048::LIMBS }>>::PARAMS;
        let minus = |less: u8| {
            let value = p.modulus().wrapping_sub(&U2048::from_u8(less));
            shared(&exponent(), value.to_be_bytes().as_ref())
        };
        assert!(minus(0).is_none() && minus(1).is_none());
        assert!(minus(2).is_some());
        let small = |value: u8| shared(&exponent(), U2048::from_u8(value).to_be_bytes().as_ref());
        assert!(small(0).is_none() && small(1).is_none());
        assert!(small(2).is_some());
    }
}
