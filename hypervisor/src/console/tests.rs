// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console, with the hosted machine's line.

use super::*;

fn printed() -> alloc::string::String {
    alloc::string::String::from_utf8(arch::console::take_output()).expect("text")
}

#[test]
fn lines_have_a_prefix_and_are_kept() {
    let _machine = arch::hosted::boot(4096, 1);
    OUTPUT.lock().ring.clear();
    say(Some(&mut OUTPUT.lock()), None, "one\ntwo");
    assert_eq!(printed(), "(xenith) one\n(xenith) two\n");
    let mut buffer = [0; 100];
    let (count, _) = read_log(0, &mut buffer);
    assert_eq!(&buffer[..count], b"(xenith) one\n(xenith) two\n");
}

#[test]
fn a_message_does_not_join_a_line_of_the_guest() {
    let _machine = arch::hosted::boot(4096, 1);
    OUTPUT.lock().in_line = Some(DOM0);
    say(Some(&mut OUTPUT.lock()), None, "hello");
    say(None, Some(1), "again");
    assert_eq!(printed(), "\n(xenith) hello\n(xenith) again\n");
}

#[test]
fn a_flood_is_cut_and_told() {
    let _machine = arch::hosted::boot(4096, 1);
    for _ in 0..1000 {
        say(Some(&mut OUTPUT.lock()), Some(9), "d9: bad");
    }
    assert!(printed().lines().count() < 50);
    arch::time::advance(10_000_000_000);
    say(Some(&mut OUTPUT.lock()), Some(9), "d9: bad");
    let text = printed();
    assert!(text.contains("messages left out"), "{text}");
}

#[test]
fn long_messages_end_in_dots() {
    let mut message = Message::default();
    for _ in 0..100 {
        message.write_str("häßliche ").expect("takes everything");
    }
    assert!(message.text.len() <= LONGEST + 4 && message.text.ends_with(" ..."));
}

#[test]
fn what_is_typed_is_read() {
    let _machine = arch::hosted::boot(4096, 1);
    give_input(Receiver::Dom0);
    arch::console::type_in(&[b'x'; 100]);
    receive::input();
    let mut seen = 0;
    assert_eq!(
        read_input(70, |_, part| {
            seen += part.len();
            Ok(())
        }),
        Ok(70)
    );
    assert_eq!(seen, 70);
    assert_eq!(read_input(1, |_, _| Err(hypercalls::Errno::EFAULT)), Err(hypercalls::Errno::EFAULT));
    assert_eq!(read_input(1000, |_, _| Ok(())), Ok(30));
}
