// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who gets what is typed: three presses of one key in a row hand the input on to the next receiver.
//!
//! Presses are held back until it is known that there are not three of them, and then passed on with what follows.

use arrayvec::{ArrayString, ArrayVec};
use boot::info::MAX_MODULES;
use boot::static_domain::MAX_NAME;
use hypercalls::DomId;

/// Presses in a row that switch.
const PRESSES: u8 = 3;

/// Who gets what is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The hypervisor: each byte is a debug key.
    Hypervisor,
    /// dom0's console.
    Dom0,
    /// That of a static domain.
    Guest(DomId),
}

/// The most static domains that can get the input: each takes at least one module.
pub(super) const MOST_GUESTS: usize = MAX_MODULES;

/// What became of a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It may be the start of a switch.
    Held,
    /// It completed a switch.
    Switched,
    /// It goes to the receiver, behind as many presses that were held back.
    Passed(u8),
}

/// The state of the switch.
#[derive(Debug)]
pub(super) struct Switch {
    /// The byte that the key sends, 0 for none.
    pub(super) key: u8,
    /// Who gets the input now.
    pub(super) receiver: Receiver,
    /// dom0 is there, or will be.
    pub(super) has_dom0: bool,
    /// The static domains, with their names.
    pub(super) guests: ArrayVec<(DomId, ArrayString<MAX_NAME>), MOST_GUESTS>,
    pressed: u8,
}

impl Switch {
    /// Returns a switch by Ctrl-A that leads to the hypervisor, the only one there at boot.
    pub(super) const fn new() -> Self {
        Self { key: 1, receiver: Receiver::Hypervisor, has_dom0: true, guests: ArrayVec::new_const(), pressed: 0 }
    }

    /// Takes a byte that was typed.
    pub(super) fn take(&mut self, byte: u8) -> Taken {
        if self.key == 0 || byte != self.key {
            return Taken::Passed(core::mem::take(&mut self.pressed));
        }
        self.pressed += 1;
        if self.pressed < PRESSES {
            return Taken::Held;
        }
        self.pressed = 0;
        self.receiver = self.next();
        Taken::Switched
    }

    /// Returns who comes behind the one that gets the input: from dom0 to the hypervisor, the static domains, and dom0 again.
    pub(super) fn next(&self) -> Receiver {
        let last = if self.has_dom0 { Receiver::Dom0 } else { Receiver::Hypervisor };
        let behind = match self.receiver {
            Receiver::Dom0 => return Receiver::Hypervisor,
            Receiver::Hypervisor => 0,
            Receiver::Guest(id) => self.guests.iter().take_while(|(other, _)| *other != id).count() + 1,
        };
        self.guests.get(behind).map_or(last, |(id, _)| Receiver::Guest(*id))
    }

    /// Returns what a receiver is called.
    pub(super) fn name(&self, of: Receiver) -> &str {
        match of {
            Receiver::Hypervisor => "Xenith",
            Receiver::Dom0 => "dom0",
            Receiver::Guest(id) => {
                self.guests.iter().find(|(other, _)| *other == id).map_or("nobody", |(_, name)| name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_in_a_row_switch_and_fewer_are_passed_on() {
        let mut switch = Switch::new();
        switch.receiver = Receiver::Dom0;
        let taken: alloc::vec::Vec<Taken> = b"a\x01b\x01\x01c\x01\x01\x01d".iter().map(|b| switch.take(*b)).collect();
        use Taken::*;
        assert_eq!(taken, [Passed(0), Held, Passed(1), Held, Held, Passed(2), Held, Held, Switched, Passed(0)]);
        assert_eq!(switch.receiver, Receiver::Hypervisor);
        assert_eq!([1, 1, 1].map(|b| switch.take(b)), [Held, Held, Switched]);
        assert_eq!(switch.receiver, Receiver::Dom0);
    }

    #[test]
    fn static_domains_have_their_turns_behind_the_hypervisor() {
        let mut switch = Switch::new();
        for (id, name) in [(1, "web"), (4, "db")] {
            switch.guests.push((DomId(id), ArrayString::from(name).expect("short")));
        }
        let round = |switch: &mut Switch| {
            assert_eq!([1; 3].map(|b| switch.take(b)), [Taken::Held, Taken::Held, Taken::Switched]);
            alloc::string::String::from(switch.name(switch.receiver))
        };
        assert_eq!([0; 5].map(|_| round(&mut switch)), ["web", "db", "dom0", "Xenith", "web"]);
        switch.has_dom0 = false;
        assert_eq!([0; 3].map(|_| round(&mut switch)), ["db", "Xenith", "web"]);
    }

    #[test]
    fn without_a_key_nothing_switches() {
        let mut switch = Switch::new();
        switch.key = 0;
        assert!([0, 1, 0, 1].iter().all(|b| switch.take(*b) == Taken::Passed(0)));
    }
}
