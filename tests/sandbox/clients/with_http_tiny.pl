# Fetches the URL that is its argument, with Perl's HTTP::Tiny.
use strict;
use warnings;
use HTTP::Tiny;

my $answer = HTTP::Tiny->new(verify_SSL => 1)->get($ARGV[0]);
die join(" ", $answer->{status}, $answer->{reason}, $answer->{content} // ""), "\n"
    unless $answer->{success};
print $answer->{content};
