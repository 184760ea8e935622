// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which CPUs share a core or a socket: parts of the numbers of their local APICs.

/// How many low bits of an APIC's number tell threads of a core, and how many threads of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    thread_bits: u32,
    socket_bits: u32,
}

/// Where a CPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Its core's number in the socket.
    pub core: u32,
    /// Its socket.
    pub socket: u32,
}

const AMD: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];

/// Returns how many bits tell so many things apart.
const fn bits_for(count: u32) -> u32 {
    if count < 2 { 0 } else { (count - 1).ilog2() + 1 }
}

impl Topology {
    /// Reads it from CPUID: `leaf(number, subleaf)`.
    pub fn new(leaf: impl Fn(u32, u32) -> [u32; 4]) -> Self {
        let [max, b, c, d] = leaf(0, 0);
        let extended_max = leaf(0x8000_0000, 0)[0];
        let extended = |number| if number <= extended_max { leaf(number, 0) } else { [0; 4] };
        if max >= 0xb
            && let Some(known) = Self::from_levels(|n| leaf(0xb, n))
        {
            return known;
        }
        let [_, about, _, features] = leaf(1, 0);
        let logical = if features >> 28 & 1 != 0 { about >> 16 & 0xff } else { 1 };
        if [b, c, d] == AMD {
            let sizes = extended(0x8000_0008)[2];
            let socket_bits = match sizes >> 12 & 0xf {
                0 => bits_for((sizes & 0xff) + 1),
                bits => bits,
            };
            let threads =
                if extended(0x8000_0001)[2] >> 22 & 1 != 0 { (extended(0x8000_001e)[1] >> 8 & 0xff) + 1 } else { 1 };
            let thread_bits = bits_for(threads);
            return Self { thread_bits: thread_bits.min(socket_bits), socket_bits };
        }
        let cores = if max >= 4 { (leaf(4, 0)[0] >> 26) + 1 } else { 1 };
        let socket_bits = bits_for(logical);
        Self { thread_bits: socket_bits - bits_for(cores).min(socket_bits), socket_bits }
    }

    /// Reads the leaf that lists levels: threads, then cores.
    fn from_levels(level: impl Fn(u32) -> [u32; 4]) -> Option<Self> {
        const THREADS: u32 = 1;
        const CORES: u32 = 2;
        let mut found = Self { thread_bits: 0, socket_bits: 0 };
        for number in 0..8 {
            let [shift, count, kind, _] = level(number);
            let (shift, kind) = (shift & 0x1f, kind >> 8 & 0xff);
            match kind {
                _ if count & 0xffff == 0 => break,
                THREADS => found.thread_bits = shift,
                CORES => {}
                _ => break,
            }
            found.socket_bits = shift;
        }
        (level(0)[1] & 0xffff != 0).then_some(found)
    }

    /// Returns which thread of its core the CPU is whose APIC has this number.
    pub const fn thread(&self, apic_id: u32) -> u32 {
        match 1u32.checked_shl(self.thread_bits) {
            Some(size) => apic_id & (size - 1),
            None => apic_id,
        }
    }

    /// Says where the CPU is whose APIC has this number.
    pub const fn locate(&self, apic_id: u32) -> Location {
        let mask = match 1u32.checked_shl(self.socket_bits) {
            Some(size) => size - 1,
            None => u32::MAX,
        };
        Location { core: (apic_id & mask) >> self.thread_bits, socket: apic_id & !mask }.shifted(self.socket_bits)
    }
}

impl Location {
    const fn shifted(self, bits: u32) -> Self {
        let socket = match self.socket.checked_shr(bits) {
            Some(socket) => socket,
            None => 0,
        };
        Self { socket, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: [u32; 4] = [0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69];

    #[test]
    fn the_leaf_of_levels() {
        // Two threads a core, six cores (three bits) a socket.
        let leaf = |number, subleaf| match (number, subleaf) {
            (0, _) => INTEL,
            (0xb, 0) => [1, 2, 0x100, 0],
            (0xb, 1) => [4, 12, 0x201, 0],
            _ => [0; 4],
        };
        let topology = Topology::new(leaf);
        assert_eq!(topology, Topology { thread_bits: 1, socket_bits: 4 });
        assert_eq!(topology.locate(0), Location { core: 0, socket: 0 });
        assert_eq!(topology.locate(0b1011), Location { core: 5, socket: 0 });
        assert_eq!(topology.locate(0b11_0110), Location { core: 3, socket: 3 });
    }

    #[test]
    fn an_old_intel() {
        let leaf = |number, _| match number {
            0 => [4, INTEL[1], INTEL[2], INTEL[3]],
            1 => [0, 8 << 16, 0, 1 << 28],
            4 => [3 << 26, 0, 0, 0],
            _ => [0; 4],
        };
        assert_eq!(Topology::new(leaf), Topology { thread_bits: 1, socket_bits: 3 });
    }

    #[test]
    fn amd() {
        let leaf = |number, _| match number {
            0 => [1, AMD[0], AMD[1], AMD[2]],
            0x8000_0000 => [0x8000_001e, 0, 0, 0],
            0x8000_0001 => [0, 0, 1 << 22, 0],
            0x8000_0008 => [0, 0, 4 << 12 | 11, 0],
            0x8000_001e => [0, 1 << 8, 0, 0],
            _ => [0; 4],
        };
        assert_eq!(Topology::new(leaf), Topology { thread_bits: 1, socket_bits: 4 });
    }

    #[test]
    fn one_of_everything() {
        let topology = Topology::new(|_, _| [0; 4]);
        assert_eq!(topology.locate(7), Location { core: 0, socket: 7 });
    }
}
