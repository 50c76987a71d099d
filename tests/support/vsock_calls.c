/* Tries to get a vsock socket, by every way of calling the kernel that the machine has.
 *
 *   vsock_calls                 a line for each way: its name and the errno, 0 for success, or
 *                               "fault" where this kernel has no such way
 *   vsock_calls dial CID PORT   connects, and prints the errno of what failed, 0 for success
 *
 * Linked statically and without position independence: nothing can be preloaded into it, and its
 * data is where a 32-bit system call can point.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define IO_URING_SETUP 425
#define IO_URING_ENTER 426
#define IO_URING_REGISTER 427
#define HIGH_HALF (1L << 32)

static void tell(const char *way, long result)
{
    printf("%s %d\n", way, result < 0 ? errno : 0);
}

#ifdef __x86_64__
#define X32_BIT 0x40000000L
#define I386_SOCKETCALL 102
#define I386_SOCKET 359
#define SOCKETCALL_SOCKET 1

static sigjmp_buf before_fault;

static void on_fault(int number)
{
    siglongjmp(before_fault, number);
}

static void tell_i386(const char *way, long call, long first, long second)
{
    long result;

    if (sigsetjmp(before_fault, 1)) {
        printf("%s fault\n", way);
        return;
    }
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(call), "b"(first), "c"(second), "d"(0L)
                     : "memory", "r8", "r9", "r10", "r11");
    errno = result < 0 ? (int)-result : 0;
    tell(way, result);
}

static void try_foreign_ways(void)
{
    static uint32_t arguments[] = {AF_VSOCK, SOCK_STREAM, 0};

    signal(SIGSEGV, on_fault);
    tell("x32", syscall(X32_BIT | SYS_socket, AF_VSOCK, SOCK_STREAM, 0));
    tell_i386("i386", I386_SOCKET, AF_VSOCK, SOCK_STREAM);
    tell_i386("i386-socketcall", I386_SOCKETCALL, SOCKETCALL_SOCKET, (long)arguments);
}
#else
static void try_foreign_ways(void)
{
}
#endif

static int try_ways(void)
{
    int pair[2];

    tell("native", syscall(SYS_socket, (long)AF_VSOCK, SOCK_STREAM, 0));
    tell("native-high-half", syscall(SYS_socket, HIGH_HALF | AF_VSOCK, SOCK_STREAM, 0));
    tell("native-datagram", syscall(SYS_socket, (long)AF_VSOCK, SOCK_DGRAM, 0));
    tell("socketpair", syscall(SYS_socketpair, (long)AF_VSOCK, SOCK_STREAM, 0, pair));
    tell("io_uring_setup", syscall(IO_URING_SETUP, 1, NULL));
    tell("io_uring_enter", syscall(IO_URING_ENTER, -1, 0, 0, 0, NULL, 0));
    tell("io_uring_register", syscall(IO_URING_REGISTER, -1, 0, NULL, 0));
    tell("tcp", syscall(SYS_socket, (long)AF_INET, SOCK_STREAM, 0));
    tell("unix", syscall(SYS_socketpair, (long)AF_UNIX, SOCK_STREAM, 0, pair));
    try_foreign_ways();
    return 0;
}

static int dial(unsigned int cid, unsigned int port)
{
    struct sockaddr_vm address;
    int connection = socket(AF_VSOCK, SOCK_STREAM, 0);

    memset(&address, 0, sizeof(address));
    address.svm_family = AF_VSOCK;
    address.svm_cid = cid;
    address.svm_port = port;
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof(address)) < 0)
        return errno;
    return 0;
}

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count == 1)
        return try_ways();
    if (count == 4 && strcmp(words[1], "dial") == 0) {
        printf("%d\n", dial(strtoul(words[2], NULL, 10), strtoul(words[3], NULL, 10)));
        return 0;
    }
    return 2;
}
