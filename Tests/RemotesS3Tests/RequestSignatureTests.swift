import HSMRemotes
import Testing

/// AWS's published examples.
@Suite struct RequestSignatureTests {
    /// "Examples: Signature calculations" of the S3 API reference; 24 May 2013, 00:00:00 GMT.
    static let s3 = RequestSignature(
        .init(accessKey: "AKIAIOSFODNN7EXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        region: "us-east-1")
    /// The Signature Version 4 test suite; 30 August 2015, 12:36:00 GMT.
    static let suite = RequestSignature(
        .init(accessKey: "AKIDEXAMPLE", secretKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), region: "us-east-1",
        service: "service")

    private func signature(
        _ signature: RequestSignature, _ path: String, _ query: [(String, String)] = [],
        headers: [(String, String)], time: Int, s3: Bool = true
    ) -> (names: String, signature: String) {
        let all = signature.headers(
            method: "GET", path: path, query: query, headers: headers, time: time, signsContentDigest: s3)
        let value = all.first { $0.0 == "Authorization" }?.1 ?? ""
        let parts = value.split(separator: ", ").map {
            $0.split(separator: "=", maxSplits: 1).last.map(String.init) ?? ""
        }
        return (parts[1], parts[2])
    }

    @Test func `S3's example of an object's range`() {
        let result = signature(
            Self.s3, "/test.txt",
            headers: [("Host", "examplebucket.s3.amazonaws.com"), ("Range", "bytes=0-9")], time: 1_369_353_600)
        #expect(result.names == "host;range;x-amz-content-sha256;x-amz-date")
        #expect(result.signature == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
    }

    @Test(arguments: [
        ([("lifecycle", "")], "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            [("prefix", "J"), ("max-keys", "2")],
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        ),
    ])
    func `S3's examples of a bucket's queries`(_ query: [(String, String)], _ expected: String) {
        let host = [("host", "examplebucket.s3.amazonaws.com")]
        #expect(signature(Self.s3, "/", query, headers: host, time: 1_369_353_600).signature == expected)
    }

    @Test(arguments: [
        ("/", [], "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "/", [("Param2", "value2"), ("Param1", "value1")],
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
        ),
        ("/%E1%88%B4", [], "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
        (
            "/",
            [
                (
                    "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
                    "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                )
            ], "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"
        ),
    ])
    func `the test suite's requests`(_ path: String, _ query: [(String, String)], _ expected: String) {
        let host = [("Host", "example.amazonaws.com")]
        #expect(signature(Self.suite, path, query, headers: host, time: 1_440_938_160, s3: false).signature == expected)
    }

    @Test func `a session's token is sent, and signed`() {
        let session = RequestSignature(
            .init(accessKey: "AKIDEXAMPLE", secretKey: "x", sessionToken: "token"), region: "us-east-1")
        let headers = session.headers(method: "GET", path: "/", query: [], headers: [("host", "h")], time: 0)
        #expect(headers.contains { $0 == ("x-amz-security-token", "token") })
        #expect(headers.last?.1.contains("x-amz-date;x-amz-security-token,") == true)
    }
}
