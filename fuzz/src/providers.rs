//! AES-GCM: whatever is to be encrypted or opened, all providers do the same.

use aead::{Burst, ICV, Key, Packet, Provider, Soon, open, open_one, seal, seal_one};

/// Longest text of a packet that bytes can ask for, in bytes: more than there are bytes, which are then used again.
const LONGEST: usize = 4096;

/// Reads bytes as a key, what belongs to a packet, lengths of a burst, and text. Seals and opens it with each provider that this machine
/// can run.
///
/// # Panics
/// Two providers differ, one does not open what another sealed, one opens what nobody sealed, or something beside a text changes.
pub fn aead(bytes: &[u8]) {
    let mut input = Input { bytes };
    let flags = input.number() as u8;
    let key: Vec<u8> = (0..if flags & 1 == 0 { 16 } else { 32 }).map(|_| input.byte()).collect();
    let fields = Fields {
        salt: (input.number() as u32).to_be_bytes(),
        iv: input.number() << 32 | input.number(),
        sequence: input.number() << 32 | input.number(),
        spi: input.number() as u32,
        esn: flags & 2 != 0,
    };
    let count = usize::from(flags >> 2 & 3) + 1;
    let lengths: Vec<usize> = (0..count).map(|_| input.number() as usize % LONGEST).collect();
    let start = input.byte() as usize % 64;
    let forged = input.number() as usize;
    let text = input.bytes;
    let plain: Vec<Vec<u8>> = lengths
        .iter()
        .map(|length| text.iter().copied().cycle().chain(std::iter::repeat(0)).take(*length).collect())
        .collect();

    let keys: Vec<Key> = Provider::ALL
        .into_iter()
        .filter(|provider| provider.is_usable())
        .map(|provider| Key::new(provider, &key).expect("a key of 16 or 32 bytes"))
        .collect();
    let mut made: Option<Vec<Vec<u8>>> = None;
    for key in &keys {
        let mut burst = Texts::new(key, fields, start, &plain);
        seal(key.provider(), &mut burst);
        let sealed = burst.taken();
        assert_eq!(made.get_or_insert_with(|| sealed.clone()), &sealed, "{key:?} seals in its own way");
    }
    let made = made.expect("there is aes-gcm");
    for key in &keys {
        let mut burst = Texts::new(key, fields, start, &plain);
        burst.put(&made);
        open(key.provider(), &mut burst);
        assert_eq!(burst.authentic, vec![true; count], "{key:?} does not open");
        assert_eq!(burst.taken().iter().map(|text| &text[..text.len() - ICV]).collect::<Vec<_>>(), plain);
    }
    for (key, made) in keys.iter().cycle().zip(&made) {
        let mut changed = made.clone();
        let bit = forged % (8 * changed.len());
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(
            !open_one(fields.packet(key, 0, &mut changed)),
            "{key:?} opens what was changed at bit {bit}"
        );
    }
    // What nobody sealed; but somebody might have, who had the key: then it is what all make of it.
    if text.len() >= ICV {
        for key in &keys {
            let mut opened = text.to_vec();
            if open_one(fields.packet(key, 0, &mut opened)) {
                seal_one(fields.packet(key, 0, &mut opened));
                assert_eq!(opened, text, "{key:?} opens what nobody sealed");
            }
        }
    }
}

/// Bytes that numbers are taken from; zeros behind them.
struct Input<'a> {
    bytes: &'a [u8],
}

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        (0..4).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }
}

/// What packets have beside key and text.
#[derive(Clone, Copy)]
struct Fields {
    salt: [u8; 4],
    iv: u64,
    sequence: u64,
    spi: u32,
    esn: bool,
}

impl Fields {
    fn packet<'a>(&self, key: &'a Key, number: usize, text: &'a mut [u8]) -> Packet<'a> {
        let (iv, sequence) = (self.iv.wrapping_add(number as u64), self.sequence.wrapping_add(number as u64));
        Packet { key, salt: self.salt, iv, sequence, spi: self.spi, esn: self.esn, text }
    }
}

/// A burst of texts in one buffer, with other bytes before, between and behind them.
struct Texts<'a> {
    key: &'a Key,
    fields: Fields,
    buffer: Vec<u8>,
    /// Where each text is, and with its ICV how long.
    places: Vec<(usize, usize)>,
    authentic: Vec<bool>,
}

/// What is beside a text.
const BESIDE: u8 = 0xa5;

impl<'a> Texts<'a> {
    fn new(key: &'a Key, fields: Fields, start: usize, texts: &[Vec<u8>]) -> Self {
        let mut burst =
            Self { key, fields, buffer: vec![BESIDE; start], places: Vec::new(), authentic: Vec::new() };
        for text in texts {
            burst.places.push((burst.buffer.len(), text.len() + ICV));
            burst.buffer.extend(text);
            burst.buffer.extend([0; ICV]);
            burst.buffer.extend([BESIDE; 17]);
        }
        burst
    }

    fn put(&mut self, texts: &[Vec<u8>]) {
        for ((at, length), text) in self.places.iter().zip(texts) {
            self.buffer[*at..at + length].copy_from_slice(text);
        }
    }

    /// The texts; nothing beside them has changed.
    fn taken(&self) -> Vec<Vec<u8>> {
        let mut beside = self.buffer.clone();
        let texts = self.places.iter().map(|(at, length)| {
            beside[*at..at + length].fill(BESIDE);
            self.buffer[*at..at + length].to_vec()
        });
        let texts = texts.collect();
        assert!(beside.iter().all(|byte| *byte == BESIDE), "{:?} writes beside a text", self.key);
        texts
    }
}

impl Burst for Texts<'_> {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn packet(&mut self, at: usize) -> Option<Packet<'_>> {
        let (begin, length) = *self.places.get(at)?;
        Some(self.fields.packet(self.key, at, &mut self.buffer[begin..begin + length]))
    }

    fn ahead(&mut self, at: usize) -> Option<Soon> {
        let (begin, length) = *self.places.get(at)?;
        Some(Soon::of(self.key, &self.buffer[begin..begin + length]))
    }

    fn sealed(&mut self, _: usize) {}

    fn opened(&mut self, at: usize, authentic: bool) {
        assert_eq!(at, self.authentic.len());
        self.authentic.push(authentic);
    }
}
