import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import org.springframework.http.client.ClientHttpRequestFactory;
import org.springframework.scheduling.concurrent.ThreadPoolTaskScheduler;
import org.springframework.vault.VaultException;
import org.springframework.vault.authentication.AppRoleAuthentication;
import org.springframework.vault.authentication.AppRoleAuthenticationOptions;
import org.springframework.vault.authentication.AppRoleAuthenticationOptions.RoleId;
import org.springframework.vault.authentication.AppRoleAuthenticationOptions.SecretId;
import org.springframework.vault.authentication.LifecycleAwareSessionManager;
import org.springframework.vault.authentication.SimpleSessionManager;
import org.springframework.vault.client.ClientHttpRequestFactoryFactory;
import org.springframework.vault.client.VaultClients;
import org.springframework.vault.client.VaultEndpoint;
import org.springframework.vault.core.VaultTemplate;
import org.springframework.vault.core.VaultTransitOperations;
import org.springframework.vault.support.Ciphertext;
import org.springframework.vault.support.ClientOptions;
import org.springframework.vault.support.Hmac;
import org.springframework.vault.support.Plaintext;
import org.springframework.vault.support.Signature;
import org.springframework.vault.support.SslConfiguration;
import org.springframework.vault.support.VaultDecryptionResult;
import org.springframework.vault.support.VaultEncryptionResult;
import org.springframework.vault.support.VaultSignatureVerificationRequest;
import org.springframework.vault.support.VaultToken;
import org.springframework.vault.support.VaultTransitKeyCreationRequest;
import org.springframework.web.client.HttpStatusCodeException;
import org.springframework.web.client.RestOperations;

/** An application that keeps its secrets with Spring Vault: {@code mvn package && java -jar target/tour.jar}. */
public final class Tour {

  private static final String FOREIGN_KEY = "somebody-elses";

  private final VaultEndpoint endpoint;
  private final ClientHttpRequestFactory requests;
  private final LifecycleAwareSessionManager session;
  private final VaultTemplate vault;
  private final VaultTransitOperations transit;
  private final String dataKey;
  private final String signingKey;

  private Tour(VaultEndpoint endpoint, AppRoleAuthenticationOptions role, String prefix) {
    this.endpoint = endpoint;
    requests = ClientHttpRequestFactoryFactory.create(new ClientOptions(), SslConfiguration.unconfigured());
    ThreadPoolTaskScheduler renewing = new ThreadPoolTaskScheduler();
    renewing.setDaemon(true);
    renewing.initialize();
    RestOperations rest = VaultClients.createRestTemplate(endpoint, requests);
    session = new LifecycleAwareSessionManager(new AppRoleAuthentication(role, rest), renewing, rest);
    vault = new VaultTemplate(endpoint, requests, session);
    transit = vault.opsForTransit();
    dataKey = prefix + "-data";
    signingKey = prefix + "-signing";
  }

  public static void main(String[] arguments) {
    AppRoleAuthenticationOptions role =
        AppRoleAuthenticationOptions.builder()
            .roleId(RoleId.provided(System.getenv("VAULT_ROLE_ID")))
            .secretId(SecretId.provided(System.getenv("VAULT_SECRET_ID")))
            .build();
    VaultEndpoint endpoint = VaultEndpoint.from(URI.create(System.getenv("VAULT_ADDR")));
    try {
      new Tour(endpoint, role, System.getenv().getOrDefault("KEY_PREFIX", "tour")).run();
    } catch (RuntimeException error) {
      System.err.println(error.getMessage());
      System.exit(1);
    }
    System.exit(0);
  }

  private void run() {
    expect(!session.getSessionToken().getToken().isEmpty(), "the login gives a token");
    done("log in");

    transit.createKey(dataKey);
    transit.createKey(signingKey, VaultTransitKeyCreationRequest.ofKeyType("ed25519"));
    expect(transit.getKey(dataKey).getType().equals("aes256-gcm96"), "the key is an AES key");
    done("create keys");

    String secret = "4111 1111 1111 1111";
    String ciphertext = transit.encrypt(dataKey, secret);
    expect(ciphertext.startsWith("vault:v1:"), "the ciphertext names version 1 of the key");
    expect(transit.decrypt(dataKey, ciphertext).equals(secret), "it decrypts");
    done("encrypt and decrypt");

    associatedData(secret);
    batch();
    dataKey();
    macsAndSignatures();
    newVersion(secret, ciphertext);

    String broken = ciphertext.substring(0, ciphertext.length() - 8) + "AAAAAAA=";
    refused(400, "a broken ciphertext", () -> transit.decrypt(dataKey, broken));
    refused(403, "another's key", () -> transit.encrypt(FOREIGN_KEY, secret));
    done("refusals");

    // Spring Vault revokes the token of the session, and logs in again when it is used next.
    VaultToken token = session.getSessionToken();
    session.destroy();
    VaultTemplate after = new VaultTemplate(endpoint, requests, new SimpleSessionManager(() -> token));
    refused(403, "a token that was revoked", () -> after.opsForTransit().getKey(dataKey));
    done("log out");
  }

  /** What the client's own methods do not know goes through write. */
  private void associatedData(String secret) {
    String row = encoded("customers/7");
    Object bound =
        written("encrypt/" + dataKey, Map.of("plaintext", encoded(secret), "associated_data", row)).get("ciphertext");
    Object opened =
        written("decrypt/" + dataKey, Map.of("ciphertext", bound, "associated_data", row)).get("plaintext");
    expect(encoded(secret).equals(opened), "what is bound to a row decrypts with the row");
    Map<String, Object> wrong = Map.of("ciphertext", bound, "associated_data", encoded("customers/8"));
    refused(400, "another row's", () -> written("decrypt/" + dataKey, wrong));
    done("associated data");
  }

  private void batch() {
    List<String> texts = List.of("number 0", "number 1", "number 2");
    List<VaultEncryptionResult> sealed = transit.encrypt(dataKey, texts.stream().map(Plaintext::of).toList());
    List<Ciphertext> ciphertexts = sealed.stream().map(VaultEncryptionResult::get).toList();
    List<VaultDecryptionResult> opened = transit.decrypt(dataKey, ciphertexts);
    expect(opened.stream().map(VaultDecryptionResult::getAsString).toList().equals(texts), "a batch keeps its order");
    done("batch");
  }

  private void dataKey() {
    Map<String, Object> pair = written("datakey/plaintext/" + dataKey, Map.of());
    byte[] raw = Base64.getDecoder().decode((String) pair.get("plaintext"));
    expect(raw.length == 32, "a data key has 32 bytes");
    Plaintext unwrapped = transit.decrypt(dataKey, Ciphertext.of((String) pair.get("ciphertext")));
    expect(Arrays.equals(unwrapped.getPlaintext(), raw), "the wrapped data key decrypts to the data key");
    done("data key");
  }

  private void macsAndSignatures() {
    Plaintext message = Plaintext.of("pay 10 to Ada");
    Plaintext other = Plaintext.of("pay 99 to Ada");
    Hmac code = transit.getHmac(dataKey, message);
    expect(isHmac(message, code) && !isHmac(other, code), "an HMAC is of one message");
    done("hmac");

    Signature signature = transit.sign(signingKey, message);
    expect(transit.verify(signingKey, message, signature), "a signature is of its message");
    expect(!transit.verify(signingKey, other, signature), "a signature is of no other message");
    done("sign and verify");
  }

  private boolean isHmac(Plaintext message, Hmac code) {
    return transit
        .verify(dataKey, VaultSignatureVerificationRequest.builder().plaintext(message).hmac(code).build())
        .isValid();
  }

  private void newVersion(String secret, String ciphertext) {
    transit.rotate(dataKey);
    String rewrapped = transit.rewrap(dataKey, ciphertext);
    expect(rewrapped.startsWith("vault:v2:"), "a rewrapped ciphertext names version 2 of the key");
    for (String each : List.of(ciphertext, rewrapped)) {
      expect(transit.decrypt(dataKey, each).equals(secret), "both decrypt");
    }
    done("rotate and rewrap");
  }

  private Map<String, Object> written(String path, Map<String, Object> given) {
    return vault.write("transit/" + path, given).getRequiredData();
  }

  /** Return a text as Transit takes it. */
  private static String encoded(String text) {
    return Base64.getEncoder().encodeToString(text.getBytes(StandardCharsets.UTF_8));
  }

  private static void expect(boolean isSo, String what) {
    if (!isSo) {
      throw new IllegalStateException("not so: " + what);
    }
  }

  private static void refused(int status, String what, Runnable call) {
    try {
      call.run();
    } catch (VaultException error) {
      if (error.getCause() instanceof HttpStatusCodeException refusal
          && refusal.getStatusCode().value() == status) {
        return;
      }
      throw error;
    }
    throw new IllegalStateException("not refused: " + what);
  }

  private static void done(String step) {
    System.out.println("ok: " + step);
  }
}
