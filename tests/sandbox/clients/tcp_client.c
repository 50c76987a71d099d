/* Fetches the page / of the host and the port that are its arguments, over plain TCP. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char answer[4096];

static int connect_to_any(const struct addrinfo *addresses)
{
    for (const struct addrinfo *each = addresses; each; each = each->ai_next) {
        int connection = socket(each->ai_family, each->ai_socktype, each->ai_protocol);
        if (connection < 0)
            continue;
        if (connect(connection, each->ai_addr, each->ai_addrlen) == 0)
            return connection;
        close(connection);
    }
    return -1;
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    const char *host = arguments[1];
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses;
    int failure = getaddrinfo(host, arguments[2], &hints, &addresses);
    if (failure) {
        fprintf(stderr, "%s: %s\n", host, gai_strerror(failure));
        return 1;
    }
    int connection = connect_to_any(addresses);
    freeaddrinfo(addresses);
    if (connection < 0) {
        perror(host);
        return 1;
    }
    char request[512];
    int size = snprintf(request, sizeof request, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", host);
    if (size >= (int)sizeof request || write(connection, request, size) != size) {
        perror(host);
        return 1;
    }
    size_t length = 0;
    ssize_t got;
    while ((got = read(connection, answer + length, sizeof answer - 1 - length)) > 0)
        length += got;
    if (got < 0) {
        perror(host);
        return 1;
    }
    const char *body = strstr(answer, "\r\n\r\n");
    if (!body) {
        fprintf(stderr, "%s: no answer\n", host);
        return 1;
    }
    fputs(body + 4, stdout);
    return 0;
}
