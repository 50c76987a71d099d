/* Looks up each name that is an argument; prints the nanoseconds until the error, line by line. */
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int count, char **names)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    for (int index = 1; index < count; index++) {
        struct addrinfo *found;
        long long started = now();
        int failure = getaddrinfo(names[index], "443", &hints, &found);
        long long ended = now();
        if (failure != EAI_NONAME) {
            fprintf(stderr, "%s: %s\n", names[index], failure ? gai_strerror(failure) : "found");
            return 1;
        }
        printf("%lld\n", ended - started);
    }
    return 0;
}
