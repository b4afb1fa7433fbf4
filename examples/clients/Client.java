import java.io.*;
import java.net.URI;
import java.net.http.*;
import java.time.Duration;
/** Asks before every line it would send. BREAKER_DEFAULT (admit or reject) holds if nobody answers. */
class Client {
    public static void main(String[] args) throws IOException, InterruptedException {
        var env = System.getenv();
        var noAnswer = env.getOrDefault("BREAKER_DEFAULT", "admit") + " no-answer";
        var url = URI.create("http://" + env.getOrDefault("BREAKER_SIDECAR_ADDRESS", "localhost:9100")
            + "/allowed/" + env.getOrDefault("BREAKER", "default"));
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build(); // keeps connections
        var question = HttpRequest.newBuilder(url).timeout(Duration.ofMillis(250)).build();
        var warmUp = HttpRequest.newBuilder(url.resolve("/livez")).timeout(Duration.ofSeconds(5)).build();
        client.sendAsync(warmUp, HttpResponse.BodyHandlers.discarding()).exceptionally(x -> null).join(); // loads classes
        for (var in = new BufferedReader(new InputStreamReader(System.in)); in.readLine() != null;) try {
            var answer = client.send(question, HttpResponse.BodyHandlers.discarding());
            var ours = answer.headers().firstValue("X-Breaker").isPresent(); // else somebody else, or no such breaker
            var after = answer.headers().firstValue("Retry-After").orElse("");
            System.out.println(!ours ? noAnswer : answer.statusCode() == 200 ? "admit" : "reject " + after);
        } catch (IOException refusedOrLate) {
            System.out.println(noAnswer);
        }
    }
}
