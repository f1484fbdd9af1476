<?php
// Answers every request of RoadRunner's http plugin with one body.
//
// A frame (goridge, version 1) on stdin and stdout: byte 0 is version << 4 | header length in 32-bit words, byte 1 flags,
// 2-5 payload length (LE), 6-9 CRC32 of bytes 0-5 (LE), 10-11 stream bits, then 32-bit options.
// https://github.com/roadrunner-server/goridge/blob/master/pkg/frame/frame.md

const CONTROL = 0x01;
const PROTO = 0x80;

function received(int $length): string
{
    $bytes = '';
    while (strlen($bytes) < $length) {
        $more = fread(STDIN, $length - strlen($bytes));
        if ($more === false || $more === '') {
            exit(0); // the server is gone
        }
        $bytes .= $more;
    }
    return $bytes;
}

function send(int $flags, string $payload, ?int $contextLength = null): void
{
    $words = $contextLength === null ? 3 : 4;
    $start = pack('CCV', 1 << 4 | $words, $flags, strlen($payload));
    $options = $contextLength === null ? '' : pack('V', $contextLength);
    fwrite(STDOUT, $start . pack('V', crc32($start)) . "\0\0" . $options . $payload);
    fflush(STDOUT);
}

while (true) {
    $header = received(12);
    $options = ((ord($header[0]) & 0x0f) - 3) * 4;
    if ($options > 0) {
        received($options);
    }
    $length = unpack('V', $header, 2)[1];
    $payload = $length > 0 ? received($length) : '';
    if (ord($header[1]) & CONTROL) {
        if (isset(json_decode($payload, true)['stop'])) {
            exit(0);
        }
        send(CONTROL, json_encode(['pid' => getmypid()]));
        continue;
    }
    // The answer's head is a protobuf message, here with the status 200 as a varint: field 1 of http.v1.Response
    // (RoadRunner 2), field 2 of http.v2.HttpHandlerResponse (RoadRunner 3). Each skips the other's field.
    $head = "\x08\xc8\x01\x10\xc8\x01";
    send(PROTO, $head . 'hello from PHP ' . PHP_MAJOR_VERSION . "\n", strlen($head));
}
