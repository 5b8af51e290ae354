package dev.walstorage;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.List;
import java.util.stream.Stream;
import org.apache.avro.file.DataFileReader;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericFixed;
import org.apache.avro.generic.GenericRecord;

/**
 * Opens every {@code .avro} file of a folder with the official reader and compares each record, of whatever kind, with
 * the line of JSON that {@code walctl dump} printed for it into the {@code .jsonl} beside it. A file is one test.
 */
public final class ReadSegments {
    private static final ObjectMapper JSON = new ObjectMapper();

    private ReadSegments() {}

    /** Reads the folder that is named, and prints what passed and failed. */
    public static void main(String[] arguments) throws IOException {
        List<Path> files;
        try (Stream<Path> all = Files.list(Path.of(arguments[0]))) {
            files = all.filter(file -> file.toString().endsWith(".avro")).sorted().toList();
        }
        int passed = 0;
        int failed = 0;
        for (Path file : files) {
            try {
                System.out.println("ok " + file.getFileName() + ": " + compare(file) + " records");
                passed++;
            } catch (Exception | LinkageError error) {
                System.out.println("FAILED " + file.getFileName() + ": " + error);
                failed++;
            }
        }
        System.out.println(passed + " passed, " + failed + " failed");
        System.out.flush();
        if (failed > 0 || passed == 0) {
            System.exit(1);
        }
    }

    /** How many records a file and its lines have in common: all of them. */
    private static int compare(Path file) throws IOException {
        List<String> lines = Files.readAllLines(file.resolveSibling(file.getFileName() + ".jsonl"));
        int count = 0;
        var records = new GenericDatumReader<GenericRecord>();
        try (var reader = new DataFileReader<>(new File(file.toString()), records)) {
            for (GenericRecord record : reader) {
                require(count < lines.size(), "more records than lines");
                compare(record, JSON.readTree(lines.get(count)), count);
                count++;
            }
        }
        require(count == lines.size() && count > 0, count + " records, " + lines.size() + " lines");
        return count;
    }

    private static void compare(GenericRecord record, JsonNode line, int number) {
        for (String field : List.of("kind", "collection_id")) {
            same(number, field, record.get(field).toString(), line.get(field).textValue());
        }
        for (String field : List.of("incarnation", "lsn", "timestamp", "producer_seq", "batch_end", "epoch")) {
            same(number, field, record.get(field), line.get(field).longValue());
        }
        for (String field : List.of("key", "producer_id", "ext", "payload")) {
            same(number, field, base64(record.get(field)), line.get(field).textValue());
        }
        byte[] crc = ((GenericFixed) record.get("crc")).bytes();
        String digits = String.format("%02x%02x%02x%02x", crc[3], crc[2], crc[1], crc[0]);
        same(number, "crc", digits, line.get("crc").textValue());
        var headers = (List<?>) record.get("headers");
        same(number, "headers", headers.size(), line.get("headers").size());
        for (int at = 0; at < headers.size(); at++) {
            var header = (GenericRecord) headers.get(at);
            JsonNode expected = line.get("headers").get(at);
            same(number, "header's name", header.get("name").toString(), expected.get("name").textValue());
            same(number, "header's value", base64(header.get("value")), expected.get("value").textValue());
        }
    }

    private static String base64(Object bytes) {
        if (bytes == null) {
            return null;
        }
        var buffer = ((ByteBuffer) bytes).duplicate();
        return new String(Base64.getEncoder().encode(buffer).array(), StandardCharsets.US_ASCII);
    }

    private static void same(int number, String field, Object read, Object expected) {
        boolean equal = read == null ? expected == null : read.equals(expected);
        require(equal, "record " + number + ": another " + field);
    }

    private static void require(boolean holds, String otherwise) {
        if (!holds) {
            throw new IllegalStateException(otherwise);
        }
    }
}
