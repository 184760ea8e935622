// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Paints the first lines of a framebuffer in one colour, which the host then looks for on the screen.

#include "drivers.h"
#include <linux/fb.h>

// DEVICE COLOUR (RRGGBB)
int test_framebuffer(int argc, char **argv)
{
	(void)argc;
	struct fb_var_screeninfo variable;
	struct fb_fix_screeninfo fixed;
	int device = open(argv[0], O_RDWR);
	uint32_t colour = strtoul(argv[1], 0, 16);
	CHECK(device >= 0);
	CHECK(ioctl(device, FBIOGET_VSCREENINFO, &variable) == 0);
	CHECK(ioctl(device, FBIOGET_FSCREENINFO, &fixed) == 0);
	size_t bytes = variable.bits_per_pixel / 8;
	CHECK((bytes == 3 || bytes == 4) && variable.yres > 16);
	uint8_t *screen = mmap(0, fixed.smem_len, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
	CHECK(screen != MAP_FAILED);
	for (size_t y = 0; y < 16; y++)
		for (size_t x = 0; x < variable.xres; x++)
			memcpy(screen + y * fixed.line_length + x * bytes, &colour, bytes);
	for (size_t y = 0; y < 16; y++)
		for (size_t x = 0; x < variable.xres; x++)
			CHECK(memcmp(screen + y * fixed.line_length + x * bytes, &colour, 3) == 0);
	printf("%ux%u, %s\n", variable.xres, variable.yres, fixed.id);
	return 0;
}
