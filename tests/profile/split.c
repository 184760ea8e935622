// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A plugin for QEMU's emulator that says whose instructions a benchmark's are. Between the marks that tests/bench executes
// it counts those of user space, of the guest's kernel and of the hypervisor, told apart by address; at the end of a row it
// writes the three as a line. For machines with one CPU.
//
// QEMU's packages have no header for plugins: what is declared here is version 1 of the interface (QEMU 4.2 to 8).

#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t plugin;
struct block;
struct instruction;
enum { ADD = 0, NO_REGISTERS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin id, void (*translated)(plugin id, struct block *block));
size_t qemu_plugin_tb_n_insns(const struct block *block);
struct instruction *qemu_plugin_tb_get_insn(const struct block *block, size_t index);
const void *qemu_plugin_insn_data(const struct instruction *instruction);
size_t qemu_plugin_insn_size(const struct instruction *instruction);
uint64_t qemu_plugin_insn_vaddr(const struct instruction *instruction);
void qemu_plugin_register_vcpu_insn_exec_inline(struct instruction *instruction, int op, void *to, uint64_t value);
void qemu_plugin_register_vcpu_insn_exec_cb(struct instruction *instruction, void (*run)(unsigned cpu, void *data), int flags,
					    void *data);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

// nopl MARK(%rax): its last byte is 1 where a batch begins, 2 where it ends, 3 where the row does.
static const uint8_t mark[] = { 0x0f, 0x1f, 0x80 };
static const uint8_t name[] = { 'r', 'a', 'm' };

static uint64_t executed[3], begun[3], counted[3];
static FILE *out;

static void marked(unsigned cpu, void *data)
{
	uintptr_t what = (uintptr_t)data;
	(void)cpu;
	for (int i = 0; i < 3; i++) {
		if (what == 1)
			begun[i] = executed[i];
		else if (what == 2)
			counted[i] += executed[i] - begun[i];
	}
	if (what == 3) {
		fprintf(out, "%lu %lu %lu\n", counted[0], counted[1], counted[2]);
		fflush(out);
		memset(counted, 0, sizeof counted);
	}
}

// Both hypervisors live in the part of the address space that the ABI reserves for them.
static int owner(uint64_t address)
{
	if (address < 1ull << 47)
		return 0;
	return address < 0xffff880000000000 ? 2 : 1;
}

static void translated(plugin id, struct block *block)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
		struct instruction *instruction = qemu_plugin_tb_get_insn(block, i);
		const uint8_t *bytes = qemu_plugin_insn_data(instruction);
		uint64_t *counter = &executed[owner(qemu_plugin_insn_vaddr(instruction))];
		qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD, counter, 1);
		if (qemu_plugin_insn_size(instruction) == 7 && memcmp(bytes, mark, 3) == 0 && memcmp(bytes + 4, name, 3) == 0)
			qemu_plugin_register_vcpu_insn_exec_cb(instruction, marked, NO_REGISTERS, (void *)(uintptr_t)bytes[3]);
	}
}

EXPORT int qemu_plugin_install(plugin id, const void *info, int argc, char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || !(out = fopen(argv[0] + 4, "w")))
		return 1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
