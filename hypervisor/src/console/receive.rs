// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is typed, on its way to whoever gets it.
//!
//! # Locking
//! `SWITCH` covers who gets a byte and that it arrives in order; `INPUT` and the queue of keys are taken under it.

use arrayvec::{ArrayString, ArrayVec};
use boot::static_domain::MAX_NAME;
use hypercalls::{DomId, Result, Virq};
use spin::mutex::Mutex;

use super::input::InputRing;
pub(super) use super::switch::MOST_GUESTS;
use super::switch::{Receiver, Switch, Taken};
use super::{events, guests, keys, print};

static SWITCH: Mutex<Switch, arch::sync::Relax> = Mutex::new(Switch::new());
/// What dom0 has not read yet.
static INPUT: Mutex<InputRing, arch::sync::Relax> = Mutex::new(InputRing::new());

/// Sets the letter that switches together with Ctrl; `None` for no switch.
pub fn set_switch(letter: Option<u8>) {
    SWITCH.lock().key = letter.map_or(0, |letter| letter & 0x1f);
}

/// Returns that letter, in lower case.
pub fn switch_letter() -> Option<u8> {
    Some(SWITCH.lock().key).filter(|key| *key != 0).map(|key| key | 0x60)
}

/// Returns who gets what is typed.
pub fn input_to() -> Receiver {
    SWITCH.lock().receiver
}

/// Lets somebody get what is typed from now on.
pub fn give_input(receiver: Receiver) {
    let mut switch = SWITCH.lock();
    switch.receiver = receiver;
    tell(&switch);
}

/// Lets whoever it is for get what is typed when the domains start: dom0, or without one the first static domain; or nobody
/// but the hypervisor.
pub fn start_input(has_dom0: bool, to_domains: bool) {
    let mut switch = SWITCH.lock();
    switch.has_dom0 = has_dom0;
    if !to_domains {
        return;
    }
    switch.receiver = if has_dom0 { Receiver::Dom0 } else { switch.next() };
    tell(&switch);
}

/// Adds a static domain to those who can get the input.
pub(super) fn add_guest(id: DomId, name: ArrayString<MAX_NAME>) {
    // As many as there can be modules.
    let _ = SWITCH.lock().guests.try_push((id, name));
}

/// Removes one; the hypervisor gets the input that was its.
pub(super) fn remove_guest(id: DomId) {
    let mut switch = SWITCH.lock();
    switch.guests.retain(|(other, _)| *other != id);
    if switch.receiver == Receiver::Guest(id) {
        switch.receiver = Receiver::Hypervisor;
        tell(&switch);
    }
}

/// Forgets the static domains, for a new machine.
#[cfg(not(target_os = "none"))]
pub fn forget_guests() {
    let mut switch = SWITCH.lock();
    let key = switch.key;
    *switch = Switch::new();
    switch.key = key;
    guests::focus(None);
}

/// Returns the static domains.
pub(super) fn guests() -> ArrayVec<DomId, MOST_GUESTS> {
    SWITCH.lock().guests.iter().map(|(id, _)| *id).collect()
}

/// Says who gets the input, and how to change that.
fn tell(switch: &Switch) {
    let (name, other) = (switch.name(switch.receiver), switch.name(switch.next()));
    let hint = if switch.receiver == Receiver::Hypervisor { "; h lists the debug keys" } else { "" };
    if switch.key == 0 {
        print(format_args!("*** serial input to {name}{hint}"));
    } else {
        let letter = char::from(switch.key | 0x40);
        print(format_args!(
            "*** serial input to {name} (type Ctrl-{letter} three times to switch input to {other}){hint}"
        ));
    }
    guests::focus(if let Receiver::Guest(id) = switch.receiver { Some(id) } else { None });
}

/// Passes a byte on; says to whom when that is a domain.
fn pass(switch: &mut Switch, byte: u8) -> Option<Receiver> {
    let to = switch.receiver;
    let held = match switch.take(byte) {
        Taken::Held => return None,
        Taken::Switched => {
            tell(switch);
            return None;
        }
        Taken::Passed(held) => held,
    };
    let presses = core::iter::repeat_n(switch.key, usize::from(held));
    for byte in presses.chain([byte]) {
        match to {
            Receiver::Dom0 => INPUT.lock().push(&[byte]),
            Receiver::Hypervisor => keys::press(byte),
            Receiver::Guest(id) => guests::type_in(id, &[byte]),
        }
    }
    Some(to).filter(|to| *to != Receiver::Hypervisor)
}

/// Fetches what has been typed and passes it on.
pub(super) fn input() {
    let mut buffer = [0; 64];
    let mut for_dom0 = false;
    let mut for_guests = ArrayVec::<DomId, MOST_GUESTS>::new();
    // A line that never falls silent does not keep this CPU.
    for _ in 0..16 {
        let count = arch::console::read(&mut buffer);
        let Some(bytes) = buffer.get(..count).filter(|b| !b.is_empty()) else {
            break;
        };
        let mut switch = SWITCH.lock();
        for &byte in bytes {
            match pass(&mut switch, byte) {
                // There is room for all of them.
                Some(Receiver::Guest(id)) if !for_guests.contains(&id) => drop(for_guests.try_push(id)),
                to => for_dom0 |= to == Some(Receiver::Dom0),
            }
        }
    }
    if for_dom0 {
        events::send_global_virq(Virq::CONSOLE);
    }
    guests::tell(&for_guests);
}

/// Hands at most `most` bytes of what was typed to `take`, in parts, each with its offset; what `take` took is gone.
/// Returns how many there were.
///
/// # Errors
/// That of `take`: the part it failed on stays.
pub fn read_input(most: usize, mut take: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<usize> {
    let mut input = INPUT.lock();
    let mut done = 0;
    while done < most {
        let part = input.first();
        let count = part.len().min(most - done);
        if count == 0 {
            break;
        }
        take(done, part.get(..count).unwrap_or(&[]))?;
        input.consume(count);
        done += count;
    }
    Ok(done)
}
