//! Packets of a walk on their way through a cipher.

use wire::buf::PacketBuf;

use super::{Found, Inbound, Numbered, Outbound, Sas};

/// One packet to be sealed or opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    /// Its slot in the walk.
    pub(crate) packet: u8,
    esn: bool,
    /// Whether the packet is authentic, once opened.
    pub(crate) authentic: bool,
    /// Of an inbound packet: it came from elsewhere than the SA's packets do.
    pub(crate) moved: bool,
    /// Where the text starts in the buffer, behind the IV. It ends where the packet does.
    pub(crate) text: u16,
    /// What the SA protects, of an inbound one.
    pub(crate) domain: u16,
    /// The slot of an outbound SA.
    sa: u32,
    pub(crate) spi: u32,
    salt: [u8; 4],
    pub(crate) sequence: u64,
    iv: u64,
}

impl Job {
    /// A packet to be opened.
    #[inline(always)]
    pub(crate) fn inbound(packet: u8, text: u16, found: &Found, sequence: u64, iv: u64, moved: bool) -> Self {
        let Found { spi, salt, esn, domain, .. } = *found;
        Self { packet, esn, authentic: false, moved, text, domain, sa: 0, spi, salt, sequence, iv }
    }

    /// A packet to be sealed by the SA in a slot.
    #[inline(always)]
    pub(crate) fn outbound(packet: u8, text: u16, sa: u32, numbered: &Numbered) -> Self {
        let Numbered { spi, salt, esn, sequence, .. } = *numbered;
        // RFC 4106 §3.1: an IV is used once with a key; so is a sequence number.
        let iv = sequence;
        Self { packet, esn, authentic: true, moved: false, text, domain: 0, sa, spi, salt, sequence, iv }
    }

    #[inline(always)]
    fn with<'a>(&self, key: &'a aead::Key, bytes: &'a mut [u8]) -> Option<aead::Packet<'a>> {
        let Self { salt, iv, sequence, spi, esn, .. } = *self;
        let text = bytes.get_mut(usize::from(self.text)..)?;
        Some(aead::Packet { key, salt, iv, sequence, spi, esn, text })
    }
}

/// Seals packets of a walk, in order.
pub(crate) fn seal<B: PacketBuf>(sas: &Sas, bufs: &mut [B], jobs: &[Job]) {
    aead::seal(sas.provider, &mut Sealing { bufs, jobs, sas: &sas.outbound });
}

/// Seals one packet whose text starts at `text` in its buffer by the SA in a slot.
pub(crate) fn seal_one<B: PacketBuf>(sas: &Sas, buf: &mut B, text: u16, sa: u32, numbered: &Numbered) {
    let job = Job::outbound(0, text, sa, numbered);
    seal(sas, std::slice::from_mut(buf), &[job]);
}

/// Opens packets of a walk, in order: says of each whether it is authentic.
pub(crate) fn open<B: PacketBuf>(sas: &Sas, bufs: &mut [B], jobs: &mut [Job]) {
    aead::open(sas.provider, &mut Opening { bufs, jobs, sas: &sas.inbound });
}

struct Sealing<'a, B> {
    bufs: &'a mut [B],
    jobs: &'a [Job],
    sas: &'a Outbound,
}

impl<B: PacketBuf> aead::Burst for Sealing<'_, B> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.jobs.len()
    }

    #[inline(always)]
    fn packet(&mut self, at: usize) -> Option<aead::Packet<'_>> {
        let job = self.jobs.get(at)?;
        let buf = self.bufs.get_mut(usize::from(job.packet))?;
        job.with(self.sas.key(job.sa)?, buf.bytes_mut())
    }

    #[inline(always)]
    fn ahead(&self, at: usize) -> Option<(&aead::Key, &[u8])> {
        let job = self.jobs.get(at)?;
        let bytes = self.bufs.get(usize::from(job.packet))?.bytes();
        Some((self.sas.key(job.sa)?, bytes.get(job.text.into()..)?))
    }

    fn opened(&mut self, _: usize, _: bool) {}
}

struct Opening<'a, B> {
    bufs: &'a mut [B],
    jobs: &'a mut [Job],
    sas: &'a Inbound,
}

impl<B: PacketBuf> aead::Burst for Opening<'_, B> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.jobs.len()
    }

    #[inline(always)]
    fn packet(&mut self, at: usize) -> Option<aead::Packet<'_>> {
        let job = self.jobs.get(at)?;
        let buf = self.bufs.get_mut(usize::from(job.packet))?;
        job.with(self.sas.key(job.spi)?, buf.bytes_mut())
    }

    #[inline(always)]
    fn ahead(&self, at: usize) -> Option<(&aead::Key, &[u8])> {
        let job = self.jobs.get(at)?;
        let bytes = self.bufs.get(usize::from(job.packet))?.bytes();
        Some((self.sas.key(job.spi)?, bytes.get(job.text.into()..)?))
    }

    #[inline(always)]
    fn opened(&mut self, at: usize, authentic: bool) {
        if let Some(job) = self.jobs.get_mut(at) {
            job.authentic = authentic;
        }
    }
}
